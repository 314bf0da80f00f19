SELECT 1 FROM customers AS c WHERE c.id = %(customer)s FOR NO KEY UPDATE
