"""Inode numbers: two numbers in one, and back."""

from hypothesis import given
from hypothesis import strategies as st

from bundlefs.fuse.inodes import CONTROL, FIRST_SNAPSHOT, FOLDER, METRICS, STATUS, Inode

VIEWS = st.integers(0, (1 << 23) - 1)
"""A number of the kernel's has 64 bits, and pyfuse3 takes it as signed in places."""


@given(VIEWS, st.integers(1, (1 << 40) - 1))
def test_an_inode_is_its_two_numbers(view: int, local: int) -> None:
    inode = Inode(view, local)
    assert Inode.of(inode.number) == inode
    assert inode.number < 1 << 63


@given(VIEWS, st.integers(0, FIRST_SNAPSHOT - 10))
def test_an_entry_has_its_key_and_nothing_else_has_one(view: int, key: int) -> None:
    folder = Inode(view, FOLDER)
    assert folder.entry(key).key == key
    assert folder.entry(key).view == view
    for local in (FOLDER, CONTROL, STATUS, METRICS, FIRST_SNAPSHOT, FIRST_SNAPSHOT + 1 + key):
        assert folder.sibling(local).key is None
        assert folder.sibling(local) != folder.entry(key)


def test_the_root_is_the_folder_of_view_0() -> None:
    assert Inode.of(1).is_root
    assert not Inode(1, FOLDER).is_root
    assert not Inode(0, CONTROL).is_root
