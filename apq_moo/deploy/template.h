/* @TITLE@

   @FIGURES@ */
#ifndef NET_H
#define NET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NET_HEIGHT @SIZE@
#define NET_WIDTH @SIZE@
#define NET_CHANNELS @CHANNELS@
#define NET_CLASSES @CLASSES@
#define NET_ARENA_BYTES @ARENA@
#define NET_WEIGHT_BYTES @WEIGHTS@

/* For an array of strings: the names of the classes, in their order. */
#define NET_CLASS_NAMES @NAMES@

/* The class of a picture, from 0: row by row, a pixel's channels side by side, 0 to 255 for 0.0 to
   1.0. Not reentrant. */
int net_classify(const uint8_t *pixels);

/* The same of pixels that are levels of the first layer's input already, 0 to @TOP@. */
int net_classify_levels(const uint8_t *levels);

/* What the classes of the last picture were given, the largest to its class; valid until the next. */
const float *net_logits(void);

/* Room for a picture within the arena, which classifying it overwrites. A picture may lie elsewhere. */
uint8_t *net_image(void);

#ifdef __cplusplus
}
#endif
#endif
