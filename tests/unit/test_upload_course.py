"""`Course`: how far ahead parts are asked for, what is taken together, and when it is given up."""

from pathlib import Path

import pytest

from bundlefs.upload.bundle import Bundle, compare
from bundlefs.upload.course import Course, Part, Stand
from bundlefs.upload.own_mount import _powerless
from bundlefs.upload.places import place
from bundlefs.upload.words import UploadError


def part(number: int) -> Part:
    return Part(Path(f"part.{number:02}"), 10)


def asked(course: Course, most: int) -> int:
    """Count what may be asked for before it would wait."""
    count = 0
    while count < most and course._room:  # noqa: SLF001  # to ask would wait
        course.next()
        count += 1
    return count


def made(course: Course, count: int) -> None:
    for number in range(count):
        course.made(part(number))


def test_little_is_asked_for_before_the_first_has_arrived() -> None:
    course = Course(ahead=6, at_first=2)
    assert asked(course, 10) == 2
    made(course, 2)
    assert asked(course, 10) == 0, "made is not arrived"
    course.sent(course.take())
    assert asked(course, 10) == 5
    course.sent(course.take())
    assert asked(course, 10) == 1


def test_one_at_a_time_or_all_that_have_gathered() -> None:
    one, many = Course(8, 8), Course(8, 8, least=3)
    for course in (one, many):
        asked(course, 8)
        made(course, 2)
    assert one.take() == [part(0)]
    first = many.take()
    assert first == [part(0), part(1)], "the first ones do not wait for company"
    many.sent(first)
    made(many, 3)
    assert len(many.take()) == 3


def test_a_second_one_starts_before_the_first_has_arrived() -> None:
    course = Course(8, 3, least=10)
    asked(course, 3)
    made(course, 1)
    assert course.take() == [part(0)]
    made(course, 2)
    assert len(course.take()) == 2


def test_what_fills_the_room_is_taken_though_it_is_few() -> None:
    """Nobody asks for more before something has arrived."""
    course = Course(2, 2, least=10)
    asked(course, 2)
    made(course, 2)
    course.sent(course.take())
    asked(course, 2)
    made(course, 2)
    assert len(course.take()) == 2


def test_the_end_is_the_least_that_was_told() -> None:
    course = Course(8, 8)
    asked(course, 5)
    made(course, 3)
    course.end(4)
    course.end(3)
    course.end(5)
    assert course.next() is None
    for _ in range(3):
        course.sent(course.take())
    assert course.take() == []
    course.wait(lambda _: None)
    assert course.stand == Stand(30, 30, ended=True)


def test_one_that_fails_stops_no_other_and_is_told_at_the_end() -> None:
    gone: list[Part] = []
    course = Course(8, 8, let_go=gone.append)
    asked(course, 3)
    made(course, 3)
    course.end(3)
    course.failed(course.take(), UploadError("first"))
    course.sent(course.take())
    course.failed(course.take(), UploadError("third"))
    with pytest.raises(UploadError, match="first"):
        course.wait(lambda _: None)
    assert gone == [part(0), part(1), part(2)]


def test_it_is_given_up_when_nothing_goes_well() -> None:
    course = Course(8, 8)
    asked(course, 8)
    made(course, 8)
    for _ in range(3):
        course.failed(course.take(), UploadError("no route"))
    assert course.take() == []
    assert course.next() is None
    with pytest.raises(UploadError, match="no route"):
        course.wait(lambda _: None)


def test_what_was_sent_before_makes_no_room() -> None:
    course = Course(2, 2)
    for _ in range(5):
        course.next()
        course.passed(10)
    assert asked(course, 10) == 2
    assert course.stand == Stand(50, 50, ended=False)


@pytest.mark.parametrize("text", ["s3://bucket/a/b", "remote:bucket/a"])
def test_a_place_is_written_as_it_is_read(text: str) -> None:
    assert str(place(text)) == text


def test_a_part_that_is_not_there_is_named() -> None:
    bundle = Bundle(Path(), ["m.xml"], {"a": 1, "b": 2}, {"index": 3}, "x86_64")
    compare(bundle, {"a": 1, "b": 2, "index": 3})
    for there in ({"a": 1, "index": 3}, {"a": 1, "b": 1, "index": 3}, {"a": 1, "b": 2}):
        with pytest.raises(UploadError, match="is not there with its size"):
            compare(bundle, there)


STATUS = "Name:\tpython\nNoNewPrivs:\t{}\nCapEff:\t{}\n"


@pytest.mark.parametrize(
    ("privileges", "powers", "user", "may"),
    [
        ("0", "000001ffffffffff", 0, True),
        ("0", "00000000a80425fb", 0, False),
        ("0", "0000000000000000", 1000, True),
        ("1", "0000000000000000", 1000, False),
    ],
)
def test_who_may_mount(privileges: str, powers: str, user: int, may: bool) -> None:  # noqa: FBT001
    assert (_powerless(STATUS.format(privileges, powers), user) is None) == may
