"""The one room that knows Lightning."""
