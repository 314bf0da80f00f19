-- The checkout session of a payment that is known by the processor's name for it.
SELECT y.session_id FROM vouchers.payment AS y WHERE y.payment_intent = %(intent)s
