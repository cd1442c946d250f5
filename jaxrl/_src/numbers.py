"""Numbers as text."""


def shown(value: float) -> str:
    """A number in the shortest form that reads back as the same number.

    >>> shown(1_234_567), shown(1e6), shown(0.001), shown(1234567.5)
    ('1234567', '1e+06', '0.001', '1234567.5')
    """
    short = str(value) if isinstance(value, int) else f"{value:g}"
    return short if float(short) == value else repr(float(value))
