//! `#[derive(WampError)]`: an enum of an application's errors, each of which is a URI on the wire.
//!
//! Used by its name in `tandem_client::wamp`, where there is an example.

#![forbid(unsafe_code)]

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitStr, Result, Variant, parse_macro_input};

/// Makes an enum the errors of a procedure.
///
/// Each variant has its URI, `#[wamp("com.example.no_such_account")]`. Unnamed fields are the positional arguments,
/// named fields the keyword arguments. There is `From<It> for ApplicationError`, with which a handler ends by `?`, and
/// `TryFrom<Error> for It`, which gives the error back where it is none of these.
#[proc_macro_derive(WampError, attributes(wamp))]
pub fn wamp_error(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<Tokens> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(input, "errors of WAMP are an enum, with a URI for each variant"));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "errors of WAMP have no parameters"));
    }
    let name = &input.ident;
    let mut seen: Vec<LitStr> = Vec::new();
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        let uri = uri(variant)?;
        if seen.iter().any(|other| other.value() == uri.value()) {
            return Err(Error::new_spanned(&uri, "another variant has this URI"));
        }
        writes.push(write(name, variant, &uri));
        reads.push(read(name, variant, &uri));
        seen.push(uri);
    }
    let ours = quote!(::tandem_client::wamp);
    Ok(quote! {
        impl ::core::convert::From<#name> for #ours::ApplicationError {
            fn from(error: #name) -> Self {
                match error { #(#writes)* }
            }
        }

        impl ::core::convert::TryFrom<&#ours::ApplicationError> for #name {
            type Error = #ours::Error;

            fn try_from(error: &#ours::ApplicationError) -> ::core::result::Result<Self, Self::Error> {
                match error.uri() {
                    #(#reads)*
                    _ => ::core::result::Result::Err(::core::convert::From::from(error.clone())),
                }
            }
        }

        impl ::core::convert::TryFrom<#ours::Error> for #name {
            type Error = #ours::Error;

            fn try_from(error: #ours::Error) -> ::core::result::Result<Self, Self::Error> {
                match error.application().map(::core::convert::TryFrom::try_from) {
                    ::core::option::Option::Some(::core::result::Result::Ok(own)) => ::core::result::Result::Ok(own),
                    _ => ::core::result::Result::Err(error),
                }
            }
        }
    })
}

/// That of `#[wamp("...")]`.
fn uri(variant: &Variant) -> Result<LitStr> {
    let mut found = variant.attrs.iter().filter(|attribute| attribute.path().is_ident("wamp"));
    match (found.next(), found.next()) {
        (Some(attribute), None) => {
            let uri: LitStr = attribute.parse_args()?;
            if uri.value().is_empty() || uri.value().contains(|c: char| c.is_whitespace() || c == '#') {
                return Err(Error::new_spanned(&uri, "this is no URI of WAMP"));
            }
            Ok(uri)
        }
        (None, _) => Err(Error::new_spanned(variant, "it has no URI: #[wamp(\"com.example.error\")]")),
        (_, Some(twice)) => Err(Error::new_spanned(twice, "it has a URI already")),
    }
}

/// From the variant to what is sent.
fn write(name: &Ident, variant: &Variant, uri: &LitStr) -> Tokens {
    let case = &variant.ident;
    let made = quote!(::tandem_client::wamp::ApplicationError::new(#uri));
    match &variant.fields {
        Fields::Unit => quote!(#name::#case => #made,),
        Fields::Unnamed(fields) => {
            let names: Vec<Ident> =
                (0..fields.unnamed.len()).map(|at| quote::format_ident!("field_{at}")).collect();
            quote!(#name::#case(#(#names),*) => #made.args((#(#names,)*)),)
        }
        Fields::Named(fields) => {
            let names: Vec<&Ident> = fields.named.iter().filter_map(|field| field.ident.as_ref()).collect();
            let types = fields.named.iter().map(|field| &field.ty);
            quote! {
                #name::#case { #(#names),* } => {
                    #[derive(::tandem_client::__private::serde::Serialize)]
                    #[serde(crate = "::tandem_client::__private::serde")]
                    struct Fields { #(#names: #types),* }
                    #made.kwargs(Fields { #(#names),* })
                }
            }
        }
    }
}

/// From what came to the variant.
fn read(name: &Ident, variant: &Variant, uri: &LitStr) -> Tokens {
    let case = &variant.ident;
    match &variant.fields {
        Fields::Unit => quote!(#uri => ::core::result::Result::Ok(#name::#case),),
        Fields::Unnamed(fields) => {
            let names: Vec<Ident> =
                (0..fields.unnamed.len()).map(|at| quote::format_ident!("field_{at}")).collect();
            let types = fields.unnamed.iter().map(|field| &field.ty);
            quote! {
                #uri => {
                    let (#(#names,)*): (#(#types,)*) = error.decode_args()?;
                    ::core::result::Result::Ok(#name::#case(#(#names),*))
                }
            }
        }
        Fields::Named(fields) => {
            let names: Vec<&Ident> = fields.named.iter().filter_map(|field| field.ident.as_ref()).collect();
            let types = fields.named.iter().map(|field| &field.ty);
            quote! {
                #uri => {
                    #[derive(::tandem_client::__private::serde::Deserialize)]
                    #[serde(crate = "::tandem_client::__private::serde")]
                    struct Fields { #(#names: #types),* }
                    let Fields { #(#names),* } = error.decode_kwargs()?;
                    ::core::result::Result::Ok(#name::#case { #(#names),* })
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refused(input: &DeriveInput) -> String {
        expand(input).unwrap_err().to_string()
    }

    #[test]
    fn what_has_no_uri_of_its_own_is_refused_with_a_reason() {
        let cases: [(DeriveInput, &str); 6] = [
            (
                parse_quote!(
                    struct It;
                ),
                "an enum",
            ),
            (
                parse_quote!(
                    enum It<T> {
                        #[wamp("a.b")]
                        One(T),
                    }
                ),
                "no parameters",
            ),
            (
                parse_quote!(
                    enum It {
                        One,
                    }
                ),
                "no URI",
            ),
            (
                parse_quote!(
                    enum It {
                        #[wamp("a b")]
                        One,
                    }
                ),
                "no URI of WAMP",
            ),
            (
                parse_quote!(
                    enum It {
                        #[wamp("a.b")]
                        #[wamp("a.c")]
                        One,
                    }
                ),
                "already",
            ),
            (
                parse_quote!(
                    enum It {
                        #[wamp("a.b")]
                        One,
                        #[wamp("a.b")]
                        Two,
                    }
                ),
                "another variant",
            ),
        ];
        for (input, why) in cases {
            assert!(refused(&input).contains(why), "{why}");
        }
    }
}
