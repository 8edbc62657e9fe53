"""`tove view`: a page where a model is asked, its gate is looked at, and experts are switched off and on.

The web framework is gradio's, an optional package. The models run in one process of their own (`worker`), which takes
one request after the other (`requests`); the page asks it and draws.

See docs/view.md.
"""
