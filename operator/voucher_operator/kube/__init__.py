"""Everything that uses the API server and is independent of Vouchers and Redemptions.

Client, cache, work queue, status writer, event recorder, CRD check, leader election, periodic tasks.
"""
