"""Pictures and exact maps of the miniature world's scenes.

Objects are convex solids seen by weak perspective: each is cast with parallel rays in its own frame, at its own scale,
and a depth buffer decides who hides whom. The ground lies below and behind every object. Only haze, shading, soft
shadows on the ground and occlusion tell the depth: the apparent size does not.

Shapes: S scenes, H W pixels, M object windows, P window side. Camera axes: x right, y up, z towards the camera.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .scene import FOCAL, IMAGE_SIZE, MAX_OBJECTS, SHAPES, Scenes, hash_uniform

COLOR_RGB = np.array(
    [(215, 55, 50), (55, 175, 65), (60, 85, 220), (225, 205, 60), (160, 60, 185), (60, 195, 205)], np.float32
) / np.float32(255)
"""RGB of each of `scene.COLORS`."""
SKY_DEPTH = 100.0
"""What the depth map holds for the sky, in metres."""
RELATIVE_DEPTH_RANGE = (1.5, 40.0)

_WINDOW = 24  # side of the square that any object fits in, in pixels
_PITCH = 0.32  # how far the objects' tops are turned towards the camera, in radians
_CHUNK = 128  # scenes rendered at a time: the working arrays then stay in the processor's cache
_NOISE_SIDE = 256
_CREASE_COSINE = 0.82
_PAD = _WINDOW


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """Pictures and maps of S scenes.

    `rgb` (S, 64, 64, 3) uint8; `depth` (S, 64, 64) float32 metres, SKY_DEPTH in the sky; `normals` (S, 64, 64, 3)
    float32 unit vectors in camera axes, zero in the sky; `edges` (S, 64, 64) uint8, 1 on outlines and creases of
    objects; `object_id` (S, 64, 64) int8, the object's slot, -1 where there is none.
    """

    rgb: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    edges: np.ndarray
    object_id: np.ndarray

    def __len__(self) -> int:
        return len(self.rgb)


def render(scenes: Scenes) -> Rendered:
    """Render every scene; the result of one scene does not depend on the others in the batch."""
    size = (len(scenes), IMAGE_SIZE, IMAGE_SIZE)
    out = Rendered(
        rgb=np.empty((*size, 3), np.uint8),
        depth=np.empty(size, np.float32),
        normals=np.empty((*size, 3), np.float32),
        edges=np.empty(size, np.uint8),
        object_id=np.empty(size, np.int8),
    )
    for start in range(0, len(scenes), _CHUNK):
        part = slice(start, start + _CHUNK)
        _render_chunk(scenes[part], Rendered(**{f.name: getattr(out, f.name)[part] for f in dataclasses.fields(out)}))
    return out


def relative_depth(depth: np.ndarray) -> np.ndarray:
    """Metres to what the depth expert predicts: log-inverse depth in [0, 1], 1 near, 0 far and sky."""
    near, far = np.log(RELATIVE_DEPTH_RANGE)
    return np.clip((far - np.log(depth)) / (far - near), 0.0, 1.0).astype(np.float32)


def _render_chunk(scenes: Scenes, out: Rendered) -> None:
    """Fills `out`, whose arrays are views of the whole batch's."""
    frame = _Frame(len(scenes))
    light_S3 = scenes.light_S3.astype(np.float32)
    ambient = scenes.ambient.astype(np.float32)[:, None, None]
    _paint_ground(scenes, frame)
    for slot in range(MAX_OBJECTS):
        drawn = np.flatnonzero(scenes.valid[:, slot])
        if not len(drawn):
            continue
        hit, depth, normal_MPP3, rows, cols = _cast(scenes, drawn, slot)
        lambert = np.maximum(np.einsum("mpqc,mc->mpq", normal_MPP3, light_S3[drawn]), 0)
        shade = ambient[drawn] + (1 - ambient[drawn]) * lambert
        tint_M3 = COLOR_RGB[scenes.color[drawn, slot]] * scenes.albedo[drawn, slot, None].astype(np.float32)
        color = shade[..., None] * tint_M3[:, None, None]
        frame.paint(drawn, rows, cols, hit, depth, normal_MPP3, color, slot)
    core = slice(_PAD, _PAD + IMAGE_SIZE)
    out.depth[:] = frame.depth[:, core, core]
    out.normals[:] = frame.normals[:, core, core]
    out.object_id[:] = frame.object_id[:, core, core]
    out.edges[:] = _edges(out.object_id, out.normals)
    out.rgb[:] = _expose(scenes, frame.color[:, core, core], out.depth)


class _Frame:
    """Padded buffers, so that an object's window never leaves them."""

    def __init__(self, num_scenes: int) -> None:
        side = IMAGE_SIZE + 2 * _PAD
        self.depth = np.full((num_scenes, side, side), SKY_DEPTH, np.float32)
        self.color = np.zeros((num_scenes, side, side, 3), np.float32)
        self.normals = np.zeros((num_scenes, side, side, 3), np.float32)
        self.object_id = np.full((num_scenes, side, side), -1, np.int8)

    def paint(self, drawn, rows, cols, hit, depth, normal, color, slot: int) -> None:
        """Write the windows' pixels that are hit and nearer than what is there."""
        side = self.depth.shape[1]
        index = (drawn[:, None] * side + rows + _PAD)[:, :, None] * side + (cols + _PAD)[:, None, :]
        nearer = hit & (depth < self.depth.reshape(-1)[index])
        index = index[nearer]
        self.depth.reshape(-1)[index] = depth[nearer]
        self.color.reshape(-1, 3)[index] = color[nearer]
        self.normals.reshape(-1, 3)[index] = normal[nearer]
        self.object_id.reshape(-1)[index] = slot


def _paint_ground(scenes: Scenes, frame: _Frame) -> None:
    """A checkered plane below the horizon with the objects' soft shadows on it."""
    core = slice(_PAD, _PAD + IMAGE_SIZE)
    horizon, height = scenes.horizon.astype(np.float32), scenes.camera_height.astype(np.float32)
    pixel = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5
    below = pixel - horizon[:, None]
    ground = below > 0.25
    z_SH = np.where(ground, FOCAL * height[:, None] / np.maximum(below, 0.25), SKY_DEPTH).astype(np.float32)
    ground &= z_SH < SKY_DEPTH
    top = int(np.floor(horizon.min()))
    z_S1 = z_SH[:, top:, None]
    x_SHW = (pixel - IMAGE_SIZE / 2) / np.float32(FOCAL) * z_S1
    phase, checker = scenes.checker_phase_S2.astype(np.float32), scenes.checker.astype(np.float32)[:, None, None]
    column = np.floor(x_SHW / checker + phase[:, 0, None, None]).astype(np.int32)
    row = np.floor(z_S1 / checker + phase[:, 1, None, None]).astype(np.int32)
    shade = np.where((column + row) & 1, np.float32(1.25), np.float32(0.75))
    shade *= 1 - _shadows(scenes, x_SHW, z_S1)
    shade = (shade * ground[:, top:, None])[..., None]  # nothing above a scene's own horizon, whoever is beside it
    frame.color[:, core, core][:, top:] = shade * scenes.ground_color_S3.astype(np.float32)[:, None, None]
    frame.depth[:, core, core] = np.where(ground, z_SH, SKY_DEPTH)[:, :, None]
    frame.normals[:, core, core, 1] = ground[:, :, None]


def _shadows(scenes: Scenes, x_SHW: np.ndarray, z_SH1: np.ndarray) -> np.ndarray:
    """How much light the objects take from each point of the ground, (S, H, W) in [0, 1)."""
    light = scenes.light_S3
    scale = scenes.depth / FOCAL
    drop = scenes.camera_height[:, None] - (scenes.y - scenes.horizon[:, None]) * scale
    reach = drop / light[:, 1, None]
    centre_x = (scenes.x - IMAGE_SIZE / 2) * scale - light[:, 0, None] * reach
    centre_z = scenes.depth + light[:, 2, None] * reach
    radius = np.maximum(scenes.size * scale * 0.75, 1e-3)
    lit = np.ones_like(x_SHW)
    strength = (scenes.shadow[:, None] * scenes.valid).astype(np.float32)
    for k in range(MAX_OBJECTS):
        # a shadow is longer along z, because the light falls from the camera's side
        dx = (x_SHW - centre_x[:, k, None, None].astype(np.float32)) / radius[:, k, None, None].astype(np.float32)
        dz = (z_SH1 - centre_z[:, k, None, None]) * light[:, 1, None, None] / radius[:, k, None, None]
        square = dx * dx + (dz * dz).astype(np.float32)
        # a smooth bump: 1 in the middle, 0 from distance 1.8 on
        bump = np.maximum(1 - square * np.float32(1 / 3.24), 0)
        lit *= 1 - strength[:, k, None, None] * bump
    return 1 - lit


def _cast(scenes: Scenes, drawn: np.ndarray, slot: int):
    """Casts the parallel rays of one slot's objects in the scenes `drawn`.

    Returns:
        hit (M, P, P) bool, depth (M, P, P) metres, normals (M, P, P, 3), the windows' pixel rows and columns (M, P).
    """
    x, y, size, depth, yaw = (
        getattr(scenes, name)[drawn, slot].astype(np.float32) for name in ("x", "y", "size", "depth", "yaw")
    )
    reach = np.arange(_WINDOW) - (_WINDOW // 2 - 1)
    cols, rows = (np.floor(x).astype(np.int64)[:, None] + reach), (np.floor(y).astype(np.int64)[:, None] + reach)
    a_MPP = ((cols + np.float32(0.5) - x[:, None]) / size[:, None]).astype(np.float32)[:, None, :]
    b_MPP = ((y[:, None] - rows - np.float32(0.5)) / size[:, None]).astype(np.float32)[:, :, None]
    window = (len(drawn), _WINDOW, _WINDOW)
    hit, w, normal = np.zeros(window, bool), np.zeros(window, np.float32), np.zeros((*window, 3), np.float32)
    for kind, name in enumerate(SHAPES):
        chosen = scenes.shape[drawn, slot] == kind
        if chosen.any():
            hit[chosen], w[chosen], normal[chosen] = _SOLIDS[name](a_MPP[chosen], b_MPP[chosen], yaw[chosen])
    surface = depth[:, None, None] - w * (size * depth / np.float32(FOCAL))[:, None, None]
    return hit, surface, normal, rows, cols


def _sphere(a, b, yaw):
    """Unit sphere. a right, b up, both in radii; returns hit, height towards the camera, normal."""
    square = 1 - a * a - b * b
    w = np.sqrt(np.maximum(square, 0))
    return square > 0, w, np.stack(np.broadcast_arrays(a, b, w), axis=-1)


def _tilted(b):
    """The ray through height b in the object's frame: y and z of its origin, and of its direction to the camera."""
    sin, cos = np.float32(np.sin(_PITCH)), np.float32(np.cos(_PITCH))
    return b * cos, -b * sin, sin, cos


def _to_camera(nx, ny, nz):
    sin, cos = np.float32(np.sin(_PITCH)), np.float32(np.cos(_PITCH))
    return np.stack(np.broadcast_arrays(nx, ny * cos - nz * sin, ny * sin + nz * cos), axis=-1)


def _box(a, b, yaw):
    """A cube of half side 0.66, turned by yaw."""
    half = np.float32(0.66)
    oy, oz, dy, dz = _tilted(b)
    sin, cos = np.sin(yaw)[:, None, None], np.cos(yaw)[:, None, None]
    origins = (a * cos - oz * sin, oy + 0 * a, a * sin + oz * cos)
    directions = tuple(np.where(np.abs(d) < 1e-4, np.float32(1e-4), d) for d in (-dz * sin, dy + 0 * sin, dz * cos))
    far = np.stack([(half * np.sign(d) - o) / d for o, d in zip(origins, directions, strict=True)])
    near = np.stack([(-half * np.sign(d) - o) / d for o, d in zip(origins, directions, strict=True)]).max(axis=0)
    axis, w = far.argmin(axis=0), far.min(axis=0)
    nx, ny, nz = ((axis == i) * np.sign(d) for i, d in enumerate(directions))
    return near <= w, w, _to_camera(nx * cos + nz * sin, ny, nz * cos - nx * sin)


def _round(a, b, lateral_near, lateral_far, low, high, normal):
    """A solid of revolution: its side between two roots, cut by the planes y = low and y = high."""
    oy, oz, dy, dz = _tilted(b)
    top = (high - oy) / dy
    w = np.minimum(lateral_far, top)
    hit = np.maximum(lateral_near, (low - oy) / dy) <= w
    y, z = oy + w * dy, oz + w * dz
    nx, ny, nz = normal(a, y, z)
    cap = top < lateral_far
    return hit, w, _to_camera(np.where(cap, 0, nx), np.where(cap, 1, ny), np.where(cap, 0, nz))


def _cylinder(a, b, yaw):
    """Upright, radius 0.72, half height 0.8."""
    radius, half = np.float32(0.72), np.float32(0.8)
    _, oz, _, dz = _tilted(b)
    square = radius * radius - a * a
    root = np.sqrt(np.maximum(square, 0))
    near, far = (-root - oz) / dz, (root - oz) / dz
    hit, w, normal = _round(a, b, near, far, -half, half, lambda x, y, z: (x / radius, np.zeros_like(y), z / radius))
    return hit & (square > 0), w, normal


def _cone(a, b, yaw):
    """Upright, base radius 0.85 at y = -0.8, tip at y = 1."""
    base, tip = np.float32(-0.8), np.float32(1.0)
    slope = np.float32(0.85) / (tip - base)
    oy, oz, dy, dz = _tilted(b)
    quad = dz * dz - slope**2 * dy * dy
    half_linear = oz * dz + slope**2 * dy * (tip - oy)
    square = half_linear**2 - quad * (a * a + oz * oz - slope**2 * (tip - oy) ** 2)
    root = np.sqrt(np.maximum(square, 0))

    def normal(x, y, z):
        up = slope**2 * (tip - y)
        length = np.sqrt(np.maximum(x * x + up * up + z * z, 1e-12))
        return x / length, up / length, z / length

    hit, w, normal_3 = _round(a, b, (-half_linear - root) / quad, (-half_linear + root) / quad, base, tip, normal)
    return hit & (square > 0), w, normal_3


_SOLIDS = {"sphere": _sphere, "box": _box, "cone": _cone, "cylinder": _cylinder}


def _edges(object_id: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(S, H, W) uint8: object pixels whose right or lower neighbour is another thing or another face, and reverse."""
    edge = np.zeros(object_id.shape, bool)
    for axis in (1, 2):
        first = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
        second = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
        differ = object_id[first] != object_id[second]
        cosine = np.einsum("shwc,shwc->shw", normals[first], normals[second])
        crease = ~differ & (object_id[first] >= 0) & (cosine < _CREASE_COSINE)
        edge[first] |= (differ & (object_id[first] >= 0)) | crease
        # one pixel wide lines: a border belongs to the object, between two objects to the first only
        edge[second] |= differ & (object_id[first] < 0)
    return edge.astype(np.uint8)


def _expose(scenes: Scenes, color: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Haze, then grain, then eight bits."""
    clear = np.exp(-scenes.haze_density.astype(np.float32)[:, None, None] * depth)[..., None]
    haze = scenes.haze_color_S3.astype(np.float32)[:, None, None]
    light = haze + (color - haze) * clear
    corner = np.floor(hash_uniform(scenes.seed, "grain", 2) * (_NOISE_SIDE - IMAGE_SIZE)).astype(int)
    for i, (top, left) in enumerate(corner):
        grain = _GRAIN[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        light[i] += grain * np.float32(scenes.noise[i])
    return (np.clip(light, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _grain() -> np.ndarray:
    """A fixed sheet of normal noise; every scene takes a window of it, at a place that its seed tells."""
    uniform = hash_uniform(np.arange(_NOISE_SIDE), "sheet", _NOISE_SIDE, 3, 4)
    return ((uniform.sum(axis=-1) - 2) * 3**0.5).astype(np.float32)


_GRAIN = _grain()
