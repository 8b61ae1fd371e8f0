"""The API that applications were promised."""
