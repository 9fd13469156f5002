"""Records behave as frozen dataclasses do."""

from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from functools import cached_property

import pytest

from pycl_cnn.records import record


@record
class Point:
    """A record with a default and something computed."""

    x: int
    y: tuple[int, ...] = (0,)

    @cached_property
    def twice(self) -> int:
        return 2 * self.x


@record
class Named(Point):
    name: str = ""
    note: str = field(default="", compare=False, repr=False)


@record(eq=False)
class Alone:
    x: int


@dataclass(frozen=True)
class Model:
    """The same as Point, as the standard library makes it."""

    x: int
    y: tuple[int, ...] = (0,)


def test_equality_and_hash_go_by_class_and_fields():
    assert Point(1) == Point(1, (0,)) != Point(2)
    assert hash(Point(1)) == hash(Point(1)) == hash(Model(1))
    assert Named(1, name="a", note="n") == Named(1, name="a") != Named(1, name="b")
    assert hash(Named(1, name="a", note="n")) == hash(Named(1, name="a"))
    assert Point(1) != Named(1) and Point(1) != (1, (0,))
    assert len({Point(1), Point(1), Point(2), Named(1)}) == 3


def test_a_record_without_equality_is_itself_alone():
    one = Alone(1)
    assert one == one and one != Alone(1) and len({one, Alone(1)}) == 2


def test_it_looks_like_a_dataclass():
    assert repr(Named(3, name="n")) == "Named(x=3, y=(0,), name='n')"
    assert repr(Point(3)).replace("Point", "Model") == repr(Model(3))
    assert [item.name for item in fields(Named)] == ["x", "y", "name", "note"]
    assert replace(Named(1, name="a"), x=5) == Named(5, name="a")
    with pytest.raises(TypeError, match="'z'"):
        Point(1, z=2)


def test_nothing_can_be_set_afterwards():
    point = Point(1)
    assert point.twice == 2
    for name in ("x", "z"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}' of Point"):
            setattr(point, name, 4)
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point == Point(1) and point.twice == 2
