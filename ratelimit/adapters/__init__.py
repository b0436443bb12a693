"""Adapters for the hooks of frameworks that call before each model call.

Owns no code. Must never be imported by what stands below the limiter, or import a
framework before its adapter is asked for.

They are for models with an HTTP client that cannot be reached. Where it can be, as of
any OpenAI client, `limiter.wrap(client)` knows each call's body and bill, and is
better; both together pay twice.
"""
