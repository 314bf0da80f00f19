-- The checkout session of a payment that is known by its payment intent.
SELECT y.session_id FROM vouchers.payment AS y WHERE y.payment_intent = %(intent)s
