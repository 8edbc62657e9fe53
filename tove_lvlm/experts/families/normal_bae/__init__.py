"""The family `normal_bae`: surface normals by NormalBae."""
