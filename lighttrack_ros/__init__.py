"""Real-time single-object tracking for ROS 2: LightTrack, MixFormerV2 and DyTrack as compiled engines."""

import os
from pkgutil import extend_path

# The generated messages live in the installed package of the same name; this lets a checkout
# on sys.path (tests, development) find them there.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"

# OpenCV reads it when it is loaded. Its own limit is 2^30 pixels: a PNG of a megabyte can hold those, and cost 3 GB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
