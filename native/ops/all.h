// Every op's contract, in the order in which a training step meets them.
#pragma once

#include "adamw.h"
#include "attention.h"
#include "bias.h"
#include "chunked_cross_entropy.h"
#include "chunked_mlp.h"
#include "cross_entropy.h"
#include "dropout.h"
#include "elementwise.h"
#include "embedding.h"
#include "glu.h"
#include "matmul.h"
#include "random_normal.h"
#include "reduction.h"
#include "rms_norm.h"
#include "rope.h"
#include "softcap.h"
