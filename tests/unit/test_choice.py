"""What makes a bundle another one, and what does not."""

import pytest

from bundlefs.state.choice import differences

OLD = {"prefix": "image", "level": "6", "kernel": "None", "ancestors": "()"}


@pytest.mark.parametrize("term", ["None", "()"])
def test_a_parameter_that_came_later_and_is_not_given_changes_nothing(term: str) -> None:
    assert differences(OLD, OLD | {"ramdisk": term}) == []
    assert differences(OLD | {"ramdisk": term}, OLD) == []


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"ramdisk": "ari-1"}, "ramdisk was not known, is ari-1"),
        ({"kernel": "aki-1"}, "kernel was None, is aki-1"),
        ({"level": "9"}, "level was 6, is 9"),
        ({"prefix": ""}, "prefix was image, is "),
    ],
)
def test_what_is_given_does(new: dict[str, str], said: str) -> None:
    assert differences(OLD, OLD | new) == [said]
    assert differences(OLD | new, OLD) != []
