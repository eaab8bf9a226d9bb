"""What a file says of itself, read within bounds before any decoder runs: one module a family of formats.

Measured against `PIL.Image.open` with limits: as quick (20 microseconds a photo). But Pillow lets through 2
of 32 hostile test files (a TIFF of floats from 0 to 1, which becomes black; 10 kB of JPEG scans: 1.7 s and
560 MB), clips 16-bit gray to white, takes a camera's raw file for its thumbnail, and says of 9 others only
"cannot identify image file".
"""
