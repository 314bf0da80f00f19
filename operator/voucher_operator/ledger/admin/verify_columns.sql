-- The major units of a code's credit, by which the Go service shows and grants it, are the floor of its minor units. (NULL
-- minor units: as the major ones.) verify_accounts.sql checks those of entries.
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('credit_omr is %s, but credit_minor is %s', p.credit_omr, p.credit_minor) AS detail
FROM promo_codes AS p
WHERE abs(p.credit_omr * (SELECT vouchers.scale()) - p.credit_minor) >= (SELECT vouchers.scale())
ORDER BY p.code
