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


def test_by_number_where_one_side_alone_has_names_and_says_so():
    names = {1: "corn", 2: "wood"}
    for truth, found, named in (({}, names, "map"), (names, {}, "truth")):
        pairing = pair_classes(PIXELS, truth, {1, 2}, found)
        assert pairing.matching == {1: 1, 2: 2}
        assert (
            pairing.note == f"only the {named} has names to pair by: classes are paired by number"
        )
    assert pair_classes(PIXELS, {}, {1, 2}, names).names == names


def test_one_name_that_both_have_is_enough():
    pairing = pair_classes(PIXELS, {1: "corn"}, {1, 2}, {1: "wood", 2: "corn"})
    assert pairing.matching == {2: 1}
    assert pairing.note.splitlines() == [
        "classes are paired by name: corn is 1 in the truth and 2 in the map",
        "classes of the truth that the map does not know count as wrong: class 2 (20 pixels)",
    ]


def test_without_names_there_is_nothing_to_say():
    for found in ({}, {1: "class 1", 2: "class 2"}, {1: "class 1 (no labels)", 2: "class 2"}):
        for truth in ({}, {1: "1", 2: "2"}):
            pairing = pair_classes(PIXELS, truth, {1, 2}, found)
            assert (pairing.matching, pairing.note) == ({1: 1, 2: 2}, None)


def test_numbers_are_no_names():
    pairing = pair_classes(PIXELS, {1: "1", 2: "2"}, {1, 2}, {1: "corn", 2: "wood"})
    assert pairing.matching == {1: 1, 2: 2}
    assert pairing.note == "only the map has names to pair by: classes are paired by number"
    assert pairing.names == {1: "corn", 2: "wood"}


def test_a_number_that_stands_at_another_one_is_a_name():
    found = {1: "class 1", 2: "1a", 3: "2"}
    pairing = pair_classes(PIXELS, {1: "1a", 2: "2"}, {1, 2, 3}, found)
    assert pairing.matching == {2: 1, 3: 2}


def test_a_map_whose_classes_were_renumbered_has_its_truths_numbers_as_names():
    pixels = {2: 5, 3: 6, 1000: 7}
    found = {1: "class 2", 2: "class 3", 3: "class 1000"}
    for truth in ({}, {number: str(number) for number in pixels}):
        assert pair_classes(pixels, truth, {1, 2, 3}, found).matching == {1: 2, 2: 3, 3: 1000}


def test_a_class_without_a_name_beside_others_is_no_reason_to_pair_by_name():
    found = {1: "corn", 2: "wood", 3: "class 3"}
    assert pair_classes({1: 1, 2: 1, 3: 1}, {}, {1, 2, 3}, found).matching == {1: 1, 2: 2, 3: 3}


def test_names_are_compared_as_a_map_can_hold_them():
    long = "Land principally occupied by agriculture, with significant areas of natural vegetation"
    found = {1: "Winter weizen", 2: long[:80].replace(",", ";")}
    pairing = pair_classes(PIXELS, {1: long, 2: "Winter\u00adweizen"}, {1, 2}, found)
    assert pairing.matching == {1: 2, 2: 1}


def test_names_that_stand_twice_pair_nothing():
    pairing = pair_classes(
        PIXELS, {1: "corn", 2: "wood"}, {1, 2, 3}, dict.fromkeys((1, 2, 3), "corn")
    )
    assert pairing.matching == {1: 1, 2: 2}


def test_a_name_that_stands_twice_leaves_the_others():
    truth = {1: "corn", 2: "corn", 7: "oak"}
    pairing = pair_classes(dict.fromkeys(truth, 5), truth, {1, 2, 3}, {1: "soy", 2: "oak", 3: "x"})
    assert pairing.matching == {2: 7}


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
