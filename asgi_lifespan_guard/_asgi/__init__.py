"""Speaks ASGI: scope, receive, send.

It knows no resource; whether a request may pass, what a report says and what is to be
held open for the lifespan are handed to it as plain callables and context managers.
"""
