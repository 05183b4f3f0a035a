"""What anyio leaves to be said about tasks; knows neither ASGI nor resources."""
