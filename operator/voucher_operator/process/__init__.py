"""The processes: start, stop and lifetime of their parts.

`run` has the operator itself, `migrate` the migration Job.
"""
