"""Visual Spatial Reasoning: whether a statement about a spatial relation is true of the image.

The table of relations is `analysis_scripts/rel_meta_category_dict.txt` of cambridgeltl/visual-spatial-reasoning
(Apache-2.0).

See docs/evaluation.md, "VSR".
"""

_RELATIONS = {
    "Adjacency": "adjacent to, alongside, at the side of, at the right side of, at the left side of, attached to, "
    "at the back of, ahead of, against, at the edge of",
    "Directional": "off, past, toward, down, deep down, up, away from, along, around, from, into, to, across, "
    "across from, through, down from",
    "Orientation": "facing, facing away from, parallel to, perpendicular to",
    "Projective": "on top of, beneath, beside, behind, left of, right of, under, in front of, below, above, over, "
    "in the middle of",
    "Proximity": "by, close to, near, far from, far away from",
    "Topological": "connected to, detached from, has as a part, part of, contains, within, at, on, in, with, "
    "surrounding, among, consists of, out of, between, inside, outside, touching",
    # "among" again, as in the source: the later line counts in the official script.
    "Unallocated": "beyond, next to, opposite to, after, among, enclosed by",
}

CATEGORY = {relation: category for category, names in _RELATIONS.items() for relation in names.split(", ")}
"""Relation -> one of the seven categories."""

CHOICES = ("True", "False")
"""What is ranked by likelihood; the first says that the statement is true."""
