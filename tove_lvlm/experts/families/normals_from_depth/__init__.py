"""The family `normals_from_depth`: surface normals computed from a depth expert's map."""
