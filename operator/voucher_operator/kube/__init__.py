"""Everything that speaks to the API server and knows no voucher.

Client, cache, work queue, status writer, event recorder, CRD check, leader election.
"""
