"""What needs models and indexes together."""
