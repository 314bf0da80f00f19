"""Values that come from mounted files, which may appear later and change: they are read at each call."""

from pathlib import Path

from pydantic import SecretStr


def read(path: Path) -> str:
    """Return the content of a file without surrounding white space; "" when it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return ""


def read_line(path: Path | None) -> str:
    """Return the content of a file without the line feed at its end; "" when it cannot be read. Blanks are kept."""
    try:
        return path.read_text().removesuffix("\n").removesuffix("\r") if path is not None else ""
    except (OSError, UnicodeError):
        return ""


def file_or_value(file: Path | None, value: SecretStr) -> str:
    """Return the content of the file, if it exists and is not empty; else the value."""
    return (read(file) if file is not None else "") or value.get_secret_value()
