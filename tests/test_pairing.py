from hypothesis import given
from hypothesis import strategies as st

from hsiclust.pairing import pair_classes

PIXELS = {1: 10, 2: 20}


def test_by_name_though_the_numbers_differ():
    pairing = pair_classes(
        PIXELS, {1: "corn", 2: "wood"}, {1, 2, 3}, {1: "bog", 2: "wood", 3: "corn"}
    )
    assert pairing.matching == {2: 2, 3: 1}
    assert pairing.names == {1: "corn", 2: "wood"}
    assert pairing.note == "classes are paired by name: corn is 1 in the truth and 3 in the map"


def test_by_name_where_the_numbers_are_the_same_says_nothing():
    names = {1: "corn", 2: "wood"}
    pairing = pair_classes(PIXELS, names, {1, 2}, names)
    assert (pairing.matching, pairing.note) == ({1: 1, 2: 2}, None)


def test_names_of_classes_without_pixels_do_not_matter():
    truth = {1: "corn", 2: "wood", 3: "wood", 4: ""}
    pairing = pair_classes(PIXELS, truth, {1, 2}, {1: "wood", 2: "corn"})
    assert pairing.matching == {1: 2, 2: 1}


def test_a_name_that_the_map_does_not_have_is_unknown_whatever_its_number():
    pairing = pair_classes(
        {1: 5, 2: 6, 3: 7}, {1: "corn", 2: "hay", 3: "oats"}, {1, 2}, {1: "corn", 2: "wood"}
    )
    assert pairing.matching == {1: 1}
    assert pairing.note == (
        "classes of the truth that the map does not know count as wrong: "
        "hay (6 pixels), oats (7 pixels)"
    )


def test_by_number_where_one_side_has_no_names():
    names = {1: "corn", 2: "wood"}
    for truth, found in (({}, names), (names, {}), ({1: "corn"}, {1: "wood", 2: "corn"})):
        pairing = pair_classes(PIXELS, truth, {1, 2}, found)
        assert (pairing.matching, pairing.note) == ({1: 1, 2: 2}, None)
    assert pair_classes(PIXELS, {}, {1, 2}, names).names == names


def test_numbers_are_no_names():
    pairing = pair_classes(PIXELS, {1: "1", 2: "2"}, {1, 2}, {1: "corn", 2: "wood"})
    assert (pairing.matching, pairing.note) == ({1: 1, 2: 2}, None)
    assert pairing.names == {1: "corn", 2: "wood"}


def test_names_that_stand_twice_pair_nothing():
    pairing = pair_classes(
        PIXELS, {1: "corn", 2: "wood"}, {1, 2, 3}, dict.fromkeys((1, 2, 3), "corn")
    )
    assert pairing.matching == {1: 1, 2: 2}


def test_files_that_share_no_name_are_paired_by_number_and_say_so():
    pairing = pair_classes(PIXELS, {1: "corn", 2: "wood"}, {1, 3}, {1: "Mais", 3: "Wald"})
    assert pairing.matching == {1: 1}
    assert pairing.note.splitlines() == [
        "the map and the truth share no class name: classes are paired by number",
        "classes of the truth that the map does not know count as wrong: wood (20 pixels)",
    ]


def test_names_as_an_envi_header_holds_them_are_the_same():
    pairing = pair_classes(
        PIXELS, {1: "corn, {min}", 2: "wood"}, {1, 2}, {2: "corn;  (min)", 1: "wood"}
    )
    assert pairing.matching == {1: 2, 2: 1}
    assert pairing.names[1] == "corn, {min}"


def test_long_lists_are_cut_short():
    pairing = pair_classes(dict.fromkeys(range(1, 10), 3), {}, set(), {})
    assert pairing.matching == {}
    assert pairing.note.endswith("class 4 (3 pixels) and 5 more")


names = st.dictionaries(st.integers(1, 6), st.sampled_from(["", "a", "b", "c", "d", "3"]))


@given(
    pixels=st.dictionaries(st.integers(1, 6), st.integers(1, 9), min_size=1),
    truth=names,
    there=st.sets(st.integers(1, 6)),
    found=names,
)
def test_pairs_are_one_to_one_and_of_classes_that_are_there(pixels, truth, there, found):
    pairing = pair_classes(pixels, truth, there, found)
    assert len(set(pairing.matching.values())) == len(pairing.matching)
    assert set(pairing.matching.values()) <= pixels.keys()
    assert pairing.matching.keys() <= there | found.keys()
    assert pairing.names.keys() == pixels.keys()
    assert all(pairing.names.values())
    known = pairing.note is None or "does not know" not in pairing.note
    assert known == (set(pairing.matching.values()) == pixels.keys())
