// Mistral Small 3.1 and later, and Ministral 3 with images: the text part.
import { composite } from './composite.ts';
import { ministral3 } from './ministral3.ts';
import { mistral } from './mistral.ts';

export const mistral3 = composite({
  type: 'mistral3',
  architecture: 'Mistral3ForConditionalGeneration',
  texts: [mistral, ministral3],
  others: `vision_config image_token_index image_token_id projector_hidden_act vision_feature_layer multimodal_projector_bias
    spatial_merge_size`,
});
