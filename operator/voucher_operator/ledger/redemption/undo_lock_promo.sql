SELECT 1 FROM promo_codes AS p WHERE p.code = %(code)s FOR NO KEY UPDATE
