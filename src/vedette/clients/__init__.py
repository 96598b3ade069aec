"""The only rooms that speak to the outside. Each translates its library's errors."""
