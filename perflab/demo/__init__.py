"""A shop of real services to show perflab on, and the private servers it stands on.

This package imports nothing of perflab outside itself and nothing of OpenTelemetry: the shop is
the stranger whose code perflab must not need to change. `perflab.demo.shop` is the business;
`stores`, `processes` and `scratch` start and end it; `realusers` are its customers.
"""
