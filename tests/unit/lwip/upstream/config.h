/* lwIP's tests include a config.h; nothing of it is needed. */
