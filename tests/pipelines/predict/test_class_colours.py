from pipelines.predict.class_colours import MAX_COLOURED, class_colours
from t3d_core.prediction.timeline import Segment


def test_the_classes_that_are_longest_on_top_have_colours_of_their_own():
    segments = [Segment(0, 1, 4, 0.5), Segment(1, 3, 2, 0.5), Segment(3, 5, 4, 0.5)]
    colours = class_colours(segments)
    assert list(colours) == [4, 2]
    assert len({*colours.values()}) == 2


def test_of_many_classes_the_shortest_have_none():
    segments = [Segment(label * 100, label * 100 + label + 1, label, 0.5) for label in range(20)]
    assert list(class_colours(segments)) == list(range(19, 19 - MAX_COLOURED, -1))
