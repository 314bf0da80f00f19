"""The process around the controllers: who leads, is it healthy, how does it start and stop.

`leader` holds the Lease, `http` answers probes and Prometheus, `runner` puts everything together.
"""
