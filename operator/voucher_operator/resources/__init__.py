"""The words of the domain: pydantic models of the resources, conditions, money, reasons, errors. No I/O.

Everything else imports this layer; it imports nothing of ours.
"""
