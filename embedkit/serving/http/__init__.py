"""The HTTP APIs: what comes in, what goes out, and the routes. No web framework here; `embedkit.extras.serve` has it."""
