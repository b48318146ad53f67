"""Replication at home in web frameworks. Each module imports one framework, none is here."""

__all__: list[str] = []
