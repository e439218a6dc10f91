/* Classifies pictures from the standard input: writes the class and the logits of each. An argument
   says that they are levels already. */
#include "net.h"

#include <stdio.h>

static uint8_t picture[NET_HEIGHT * NET_WIDTH * NET_CHANNELS];

int main(int argc, char **argv)
{
    (void)argv;
    while (fread(picture, sizeof picture, 1, stdin) == 1) {
        const int found = argc > 1 ? net_classify_levels(picture) : net_classify(picture);
        const int32_t class = found;
        if (fwrite(&class, sizeof class, 1, stdout) != 1)
            return 1;
        if (fwrite(net_logits(), sizeof(float), NET_CLASSES, stdout) != NET_CLASSES)
            return 1;
    }
    return 0;
}
