// aws-lambda-ric with nothing to do.
export const handler = async () => ({});
