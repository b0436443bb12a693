"""What looks at a limiter while it works: OpenTelemetry, and a live view.

Owns no code. Must never be imported by what it looks at, or import a library before it
is asked for.
"""
