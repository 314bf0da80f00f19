"""Values that are lists, separated by commas."""


def split(value: object) -> object:
    """Return the parts of a text without surrounding white space, each once; anything else as it is."""
    if isinstance(value, str):
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    return value
