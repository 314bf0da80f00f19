"""The domain: pydantic models of the resources, conditions, money, reasons, errors. No I/O.

Every other layer imports this one; it imports no other module of this package.
"""
