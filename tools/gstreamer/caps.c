// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * The caps of both sides.
 *
 * Linear dma-bufs flow with the caps of system memory, which every sink has that takes any.
 * From 1.24 on there are also sinks that have caps for dma-bufs alone.
 */
#include <gst/allocators/gstdmabuf.h>

#include "caps.h"

gboolean caps_are_dmabuf(GstCaps *caps)
{
	GstCapsFeatures *features = gst_caps_get_features(caps, 0);

	return features && gst_caps_features_contains(features, GST_CAPS_FEATURE_MEMORY_DMABUF);
}

#if HAVE_DMA_DRM

static gboolean is_system_memory(GstCaps *caps, guint nr)
{
	GstCapsFeatures *features = gst_caps_get_features(caps, nr);

	return !features || gst_caps_features_is_equal(features,
						       GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY);
}

/* Or can they be that? A filter may name nothing but the feature. */
static gboolean is_dma_drm(GstCaps *caps, guint nr)
{
	GstCapsFeatures *features = gst_caps_get_features(caps, nr);
	GstStructure *structure = gst_caps_get_structure(caps, nr);

	return features && gst_caps_features_contains(features, GST_CAPS_FEATURE_MEMORY_DMABUF) &&
	       (gst_structure_has_field(structure, "drm-format") ||
		!gst_structure_has_field(structure, "format") ||
		!g_strcmp0(gst_structure_get_string(structure, "format"), "DMA_DRM"));
}

/* The DRM format that is @name's, linear, or NULL. */
static char *drm_name(const char *name)
{
	guint32 fourcc = gst_video_dma_drm_fourcc_from_format(gst_video_format_from_string(name));

	/* No modifier stands for the linear one. */
	return fourcc ? gst_video_dma_drm_fourcc_to_string(fourcc, 0) : NULL;
}

/* The format that is the linear DRM format @name, or NULL. */
static char *raw_name(const char *name)
{
	GstVideoFormat format;
	guint64 modifier;
	guint32 fourcc = gst_video_dma_drm_fourcc_from_string(name, &modifier);

	format = gst_video_dma_drm_fourcc_to_format(fourcc);
	if (modifier || format == GST_VIDEO_FORMAT_UNKNOWN)
		return NULL;
	return g_strdup(gst_video_format_to_string(format));
}

static void append_name(GValue *list, const char *name, char *(*translate)(const char *))
{
	GValue value = G_VALUE_INIT;
	char *translated = translate(name);

	if (!translated)
		return;
	g_value_init(&value, G_TYPE_STRING);
	g_value_take_string(&value, translated);
	gst_value_list_append_and_take_value(list, &value);
}

/* All formats that there are in both worlds, by their DRM names or by the others. */
static void append_all(GValue *list, char *(*translate)(const char *))
{
	const GstVideoFormat *formats;
	guint i, nr;

	formats = gst_video_formats_raw(&nr);
	for (i = 0; i < nr; i++) {
		const char *name = gst_video_format_to_string(formats[i]);
		char *drm = drm_name(name);

		if (drm)
			append_name(list, translate == drm_name ? name : drm, translate);
		g_free(drm);
	}
}

/*
 * Translates one name, a list of them, or NULL for any, to a list, which is empty if none has
 * another.
 */
static void translate_names(GValue *list, const GValue *names, char *(*translate)(const char *))
{
	guint i;

	g_value_init(list, GST_TYPE_LIST);
	if (!names) {
		append_all(list, translate);
	} else if (G_VALUE_HOLDS_STRING(names)) {
		append_name(list, g_value_get_string(names), translate);
	} else if (GST_VALUE_HOLDS_LIST(names)) {
		for (i = 0; i < gst_value_list_get_size(names); i++)
			append_name(list, g_value_get_string(gst_value_list_get_value(names, i)),
				    translate);
	}
}

static void append_structure(GstCaps *caps, GstStructure *structure, const char *field,
			     GValue *names, const char *feature)
{
	GstCapsFeatures *features = feature ? gst_caps_features_new(feature, NULL) : NULL;

	if (gst_value_list_get_size(names) == 1)
		gst_structure_set_value(structure, field, gst_value_list_get_value(names, 0));
	else
		gst_structure_set_value(structure, field, names);
	gst_caps_append_structure_full(caps, structure, features);
}

static void append_dma_drm(GstCaps *caps, GstStructure *raw)
{
	GstStructure *structure = gst_structure_copy(raw);
	GValue names = G_VALUE_INIT;

	translate_names(&names, gst_structure_get_value(raw, "format"), drm_name);
	if (gst_value_list_get_size(&names)) {
		gst_structure_set(structure, "format", G_TYPE_STRING, "DMA_DRM", NULL);
		append_structure(caps, structure, "drm-format", &names,
				 GST_CAPS_FEATURE_MEMORY_DMABUF);
	} else {
		gst_structure_free(structure);
	}
	g_value_unset(&names);
}

static void append_raw(GstCaps *caps, GstStructure *dma_drm)
{
	GstStructure *structure = gst_structure_copy(dma_drm);
	GValue names = G_VALUE_INIT;

	translate_names(&names, gst_structure_get_value(dma_drm, "drm-format"), raw_name);
	gst_structure_remove_field(structure, "drm-format");
	if (gst_value_list_get_size(&names))
		append_structure(caps, structure, "format", &names, NULL);
	else
		gst_structure_free(structure);
	g_value_unset(&names);
}

GstCaps *caps_of_other_side(GstPadDirection direction, GstCaps *caps)
{
	GstCaps *others = gst_caps_new_empty(), *same = gst_caps_copy(caps);
	guint i;

	for (i = 0; i < gst_caps_get_size(caps); i++) {
		GstStructure *structure = gst_caps_get_structure(caps, i);

		if (direction == GST_PAD_SINK && is_system_memory(caps, i))
			append_dma_drm(others, structure);
		else if (direction == GST_PAD_SRC && is_dma_drm(caps, i))
			append_raw(others, structure);
	}
	return gst_caps_merge(same, others);
}

#else

GstCaps *caps_of_other_side(GstPadDirection direction, GstCaps *caps)
{
	(void)direction;
	return gst_caps_ref(caps);
}

#endif
