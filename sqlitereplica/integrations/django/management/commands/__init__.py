"""Django looks for commands here."""

__all__: list[str] = []
