"""The wing that speaks to the operating system; knows neither ASGI nor resources."""
