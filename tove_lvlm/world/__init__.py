"""The miniature: a small synthetic world with exact depth, normals and edges, and text about it (our choice; DESIGN 7).

Import from the modules: `scene` (what is where), `render` (pictures and maps), `language` (text), `dataset` (files).
"""
