#!/bin/sh
# Run nanoGPT, the Hugging Face Trainer and ltm in turns, as people run them and tuned as far as they go.
# usage: bench/peers/nanogpt.sh [FOLDER FOR THE CLONE] [ltm bench train's arguments]
# nanoGPT (MIT licence) is cloned at the commit that the figures in bench/ were made with; it is no part of ltm.
set -eu
commit=3adf61e154c3fe3fca428ad6bc3818b27a3b8291
clone=${1:-nanoGPT}
[ $# -gt 0 ] && shift
[ -f "$clone/model.py" ] || git clone --quiet https://github.com/karpathy/nanoGPT "$clone"
git -C "$clone" checkout --quiet "$commit"
exec ltm bench train --peers hf,nanogpt --nanogpt "$clone" --mode usual,compiled,hardest "$@"
