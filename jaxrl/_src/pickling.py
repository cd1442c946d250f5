"""Pickles of records of functions."""

import copy
import pickle
from typing import Any, TypeVar

Record = TypeVar("Record", bound=type)


def picklable(record_type: Record) -> Record:
    """Let pickle take a NamedTuple of functions, which are pickled by cloudpickle; a decorator.

    Most of these functions are defined inside others, with the sizes and networks that they need in their closures. pickle
    cannot write such a function. cloudpickle can, and pickle reads what it writes.

    `pickle.dumps` raises a PicklingError without cloudpickle, if pickle cannot write the functions.
    """
    cls: Any = record_type
    cls.__reduce__ = lambda record: (_restore, (cls, _dumps(record)))
    # Without these two, copies would be made by pickling.
    cls.__copy__ = lambda record: record
    cls.__deepcopy__ = lambda record, memo: cls(*(copy.deepcopy(field, memo) for field in record))
    return record_type


def _dumps(record: tuple[Any, ...]) -> bytes:
    try:
        from cloudpickle import dumps
    except ImportError:
        try:
            return pickle.dumps(tuple(record))
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise pickle.PicklingError(
                f"{type(record).__name__} has functions that are defined inside functions, which pickle needs cloudpickle for "
                f"({error}): pip install cloudpickle"
            ) from error
    return dumps(tuple(record))


def _restore(record_type: Any, data: bytes) -> Any:
    return record_type(*pickle.loads(data))
