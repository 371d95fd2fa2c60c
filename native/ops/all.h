// Every op's contract, in the order in which a training step meets them.
#pragma once

#include "embedding.h"
#include "rms_norm.h"
#include "matmul.h"
#include "rope.h"
#include "attention.h"
#include "glu.h"
#include "chunked_mlp.h"
#include "cross_entropy.h"
#include "chunked_cross_entropy.h"
#include "elementwise.h"
#include "reduction.h"
#include "adamw.h"
#include "random_normal.h"
